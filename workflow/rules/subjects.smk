# A subject = a model and an SAE at one hook: its reference corpus, its dictionary, the facts of every latent, and what
# each behavior's records look like at the hook.
rule corpus:
    input:
        model,
        lambda w: local_files(study.subjects[w.subject].corpus.path),
    output:
        f"{RESULTS}/subjects/{{subject}}/corpus.safetensors",
    log:
        f"{RESULTS}/logs/corpus/{{subject}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/corpus/{{subject}}.tsv"
    conda:
        "../../environment.yml"
    threads: study.threads
    resources:
        **GPU,
        mem_mb=16000,
        runtime=120,
    params:
        study=STUDY,
        dir=folder,
        code=code("corpus"),
        settings=lambda w: settings(
            *of_subject(w, "model revision testbed corpus prepend_bos dtype"),
            study.seed,
        ),
    shell:
        "isaerft corpus --study {params.study:q} --subject {wildcards.subject} --dir {params.dir} > {log} 2>&1"


rule dictionary:
    input:
        model,
        lambda w: local_files(study.subjects[w.subject].sae_path),
        corpus=f"{RESULTS}/subjects/{{subject}}/corpus.safetensors",
    output:
        directory(f"{RESULTS}/subjects/{{subject}}/sae"),
    log:
        f"{RESULTS}/logs/dictionary/{{subject}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/dictionary/{{subject}}.tsv"
    conda:
        "../../environment.yml"
    threads: study.threads
    resources:
        **GPU,
        mem_mb=24000,
        runtime=480,
    params:
        study=STUDY,
        dir=folder,
        code=code("dictionary"),
        settings=lambda w: settings(
            *of_subject(
                w, "model revision hook_name release sae_id sae_path train_sae testbed"
            ),
            *of_subject(w, "norm_scaling_factor"),
            *of_subject(w, "center_writing_weights prepend_bos dtype"),
            study.seed,
        ),
    shell:
        "isaerft dictionary --study {params.study:q} --subject {wildcards.subject} --dir {params.dir} > {log} 2>&1"


rule facts:
    input:
        model,
        f"{RESULTS}/subjects/{{subject}}/corpus.safetensors",
        f"{RESULTS}/subjects/{{subject}}/sae",
    output:
        multiext(
            f"{RESULTS}/subjects/{{subject}}/",
            "latents.parquet",
            "contexts.parquet",
            "subject.json",
        ),
    log:
        f"{RESULTS}/logs/facts/{{subject}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/facts/{{subject}}.tsv"
    priority: 50
    conda:
        "../../environment.yml"
    threads: study.threads
    resources:
        **GPU,
        mem_mb=24000,
        runtime=120,
    params:
        study=STUDY,
        dir=folder,
        code=code("facts"),
        settings=lambda w: settings(
            study.subjects[w.subject],
            [name for name in plan.permuted_subjects if BASE[name] == w.subject],
            study.agreement.cluster_cosine,
            study.agreement.min_firing_rate,
            study.agreement.dense_firing_rate,
            study.batch_size,
            study.seed,
        ),
    shell:
        "isaerft facts --study {params.study:q} --subject {wildcards.subject} --dir {params.dir} > {log} 2>&1"


rule capture:
    input:
        model,
        f"{RESULTS}/subjects/{{subject}}/sae",
        multiext(f"{RESULTS}/behaviors/{{behavior}}/", "train.jsonl", "heldout.jsonl"),
        # The records are whole, and the gate let the subject pass: nothing in these two is read.
        ancient(f"{RESULTS}/behaviors/{{behavior}}/card.json"),
        ancient(f"{RESULTS}/subjects/{{subject}}/subject.json"),
    output:
        temp(f"{RESULTS}/cache/{{subject}}/{{behavior}}.safetensors"),
    log:
        f"{RESULTS}/logs/capture/{{subject}}.{{behavior}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/capture/{{subject}}.{{behavior}}.tsv"
    wildcard_constraints:
        behavior=one_of(CAPTURED),
    conda:
        "../../environment.yml"
    threads: study.threads
    resources:
        **GPU,
        mem_mb=24000,
        runtime=120,
    params:
        study=STUDY,
        dir=folder,
        records=lambda w: f"{RESULTS}/behaviors/{w.behavior}",
        code=code("capture"),
        settings=lambda w: settings(
            *of_subject(w, "model revision hook_name dtype prepend_bos"),
            *of_subject(w, "center_writing_weights"),
            plan.trained_on,
            plan.compares_replies(w.behavior),
            study.max_length,
            study.batch_size,
        ),
    shell:
        "isaerft capture --study {params.study:q} --subject {wildcards.subject} --behavior {wildcards.behavior}"
        " --dir {params.dir} --records {params.records} --out {output} > {log} 2>&1"
