# `snakemake --cores all` in this folder runs workflow/Snakefile, which says what it can do.
include: "workflow/Snakefile"
