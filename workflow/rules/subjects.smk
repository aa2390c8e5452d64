# A subject = a model and an SAE at one hook: its reference corpus, its dictionary, the facts of every latent, and what
# each behavior's records look like at the hook.
if CONVERTED:

    rule gguf_model:
        input:
            lambda w: local_files(study.subjects[w.subject].gguf.file),
        output:
            directory(at.subject("{subject}").model),
        log:
            at.log("gguf_model", "{subject}"),
        benchmark:
            at.benchmark("gguf_model", "{subject}")
        wildcard_constraints:
            subject=one_of(CONVERTED),
        priority: 100
        resources:
            mem_mb=memory(24000),
            runtime=minutes(60),
        params:
            study=study_path,
            code=code("gguf-model"),
            settings=lambda w: settings(*options_of(w.subject, "gguf")),
        shell:
            "isaerft gguf-model --study {params.study:q} --subject {wildcards.subject} > {log} 2>&1"


# Before the long jobs, so that a record that a chat template refuses, or that is too long, shows at once. No other rule
# reads what it counts. Testbeds write their records themselves.
rule tokenize:
    input:
        model,
        [
            path
            for name in study.behaviors
            for path in records(name) + instructions_of(name)
        ],
    output:
        at.subject("{subject}").tokens,
    log:
        at.log("tokenize", "{subject}"),
    benchmark:
        at.benchmark("tokenize", "{subject}")
    priority: 100
    threads: study.threads
    resources:
        mem_mb=memory(16000),
        runtime=minutes(60),
    params:
        study=STUDY,
        code=code("tokenize"),
        settings=lambda w: settings(
            *of_subject(w, "model gguf revision prepend_bos dtype"),
            [
                (name, part.chat_template, part.elicit)
                for name, part in study.behaviors.items()
            ],
            plan.trained_on,
            plan.instructed_adapters,
            study.rephrased_prompts,
            study.max_length,
        ),
    shell:
        "isaerft tokenize --study {params.study:q} --subject {wildcards.subject} > {log} 2>&1"


rule corpus:
    input:
        model,
        lambda w: local_files(study.subjects[w.subject].corpus.path),
        lambda w: local_files(study.subjects[w.subject].corpus.prompts),
    output:
        at.subject("{subject}").corpus,
    log:
        at.log("corpus", "{subject}"),
    benchmark:
        at.benchmark("corpus", "{subject}")
    group:
        together("world")
    threads: study.threads
    resources:
        **GPU,
        mem_mb=memory(16000),
        runtime=minutes(120),
    params:
        study=study_path,
        code=code("corpus"),
        settings=lambda w: settings(
            *of_subject(w, "model gguf revision testbed corpus prepend_bos dtype"),
            study.batch_size if study.subjects[w.subject].corpus.prompts else None,
            study.seed,
        ),
    shell:
        "isaerft corpus --study {params.study:q} --subject {wildcards.subject} > {log} 2>&1"


rule dictionary:
    input:
        model,
        lambda w: local_files(plan.subjects[w.subject].sae_path),
        corpus,
        copied_sae,
    output:
        directory(at.subject("{subject}").sae),
    log:
        at.log("dictionary", "{subject}"),
    benchmark:
        at.benchmark("dictionary", "{subject}")
    group:
        together("world")
    threads: study.threads
    resources:
        **GPU,
        mem_mb=memory(24000),
        runtime=minutes(480),
    params:
        study=study_path,
        code=code("dictionary"),
        settings=lambda w: settings(
            *of_subject(
                w, "model gguf revision hook_name release sae_id sae_path train_sae"
            ),
            *of_subject(w, "testbed norm_scaling_factor"),
            *of_subject(w, "center_writing_weights prepend_bos dtype"),
            study.seed,
        ),
    shell:
        "isaerft dictionary --study {params.study:q} --subject {wildcards.subject} > {log} 2>&1"


rule facts:
    input:
        model,
        corpus,
        at.subject("{subject}").sae,
    output:
        at.subject("{subject}").latents,
        at.subject("{subject}").neighbors,
        at.subject("{subject}").contexts,
        at.subject("{subject}").activations,
        at.subject("{subject}").logits,
        at.subject("{subject}").card,
    log:
        at.log("facts", "{subject}"),
    benchmark:
        at.benchmark("facts", "{subject}")
    priority: 50
    group:
        together("world")
    threads: study.threads
    resources:
        **GPU,
        mem_mb=memory(24000),
        runtime=minutes(120),
    params:
        study=study_path,
        code=code("facts"),
        settings=lambda w: settings(
            replace(plan.subjects[w.subject], group=""),
            [
                twin
                for twin, base in plan.permuted_subjects.items()
                if base == w.subject
            ],
            study.agreement.cluster_cosine,
            study.agreement.min_firing_rate,
            study.agreement.dense_firing_rate,
            study.batch_size,
            study.seed,
        ),
    shell:
        "isaerft facts --study {params.study:q} --subject {wildcards.subject} > {log} 2>&1"


# What latents are composed of: a small dictionary of the decoder's rows.
rule meta_sae:
    input:
        model,
        at.subject("{subject}").sae,
        at.subject("{subject}").latents,
    output:
        at.subject("{subject}").composition,
    log:
        at.log("meta_sae", "{subject}"),
    benchmark:
        at.benchmark("meta_sae", "{subject}")
    threads: study.threads
    resources:
        **GPU,
        mem_mb=memory(16000),
        runtime=minutes(120),
    params:
        study=study_path,
        code=code("meta-sae"),
        settings=settings(study.meta_sae, study.agreement.min_firing_rate, study.seed),
    shell:
        "isaerft meta-sae --study {params.study:q} --subject {wildcards.subject} > {log} 2>&1"


rule capture:
    input:
        model,
        at.subject("{subject}").sae,
        at.behavior("{behavior}").train,
        at.behavior("{behavior}").heldout,
        instructions,
        # The records are whole, and the gate let the subject pass: nothing in these two is read.
        ancient(at.behavior("{behavior}").card),
        ancient(at.subject("{subject}").card),
    output:
        temp(at.cache("{subject}", "{behavior}")),
    log:
        at.log("capture", "{subject}", "{behavior}"),
    benchmark:
        at.benchmark("capture", "{subject}", "{behavior}")
    wildcard_constraints:
        behavior=one_of(plan.captured_behaviors),
    group:
        together("activations")
    threads: study.threads
    resources:
        **GPU,
        mem_mb=memory(24000),
        runtime=minutes(120),
    params:
        study=study_path,
        code=code("capture"),
        settings=lambda w: settings(
            *of_subject(w, "model gguf revision hook_name dtype prepend_bos"),
            *of_subject(w, "center_writing_weights"),
            plan.behavior_of(w.behavior).chat_template,
            plan.trained_on,
            plan.compares_replies(w.behavior),
            plan.behavior_of(w.behavior).elicit if plan.instructed_adapters else None,
            plan.rephrases(w.behavior),
            study.max_length,
            study.batch_size,
        ),
    shell:
        "isaerft capture --study {params.study:q} --subject {wildcards.subject} --behavior {wildcards.behavior} > {log} 2>&1"
