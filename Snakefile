# `snakemake --cores all` in this folder runs workflow/Snakefile, which says what it can do.
# An `include:` would leave its default target behind.
workflow.include("workflow/Snakefile", overwrite_default_target=True)
