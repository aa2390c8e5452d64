# The embedded subject: a small language, a model trained on it, and the truth about its latents.
if TESTBEDS:

    rule testbed_model:
        output:
            directory(at.subject("{subject}").model),
        log:
            at.log("testbed_model", "{subject}"),
        benchmark:
            at.benchmark("testbed_model", "{subject}")
        wildcard_constraints:
            subject=one_of(TESTBEDS),
        group:
            together("world")
        threads: study.threads
        resources:
            **GPU,
            mem_mb=memory(4000),
            runtime=minutes(60),
        params:
            study=study_path,
            code=code("testbed-model"),
            settings=lambda w: settings(
                study.subjects[w.subject].testbed, plan.world_seed(w.subject)
            ),
        shell:
            "isaerft testbed-model --study {params.study:q} --subject {wildcards.subject} > {log} 2>&1"

    rule truth:
        input:
            model,
            at.subject("{subject}").sae,
            at.subject("{subject}").latents,
        output:
            directory(at.subject("{subject}").truth),
        log:
            at.log("truth", "{subject}"),
        benchmark:
            at.benchmark("truth", "{subject}")
        wildcard_constraints:
            subject=one_of(KNOWN),
        group:
            together("world")
        threads: study.threads
        resources:
            **GPU,
            mem_mb=memory(4000),
            runtime=minutes(60),
        params:
            study=study_path,
            code=code("truth"),
            settings=lambda w: settings(
                {
                    name: study.behaviors[name].testbed
                    for name in plan.tested_behaviors
                },
                plan.world_seed(w.subject),
            ),
        shell:
            "isaerft truth --study {params.study:q} --subject {wildcards.subject} > {log} 2>&1"


if any(behavior.testbed for behavior in study.behaviors.values()):

    rule testbed_rows:
        output:
            at.testbed_rows("{behavior}"),
        log:
            at.log("testbed_rows", "{behavior}"),
        benchmark:
            at.benchmark("testbed_rows", "{behavior}")
        wildcard_constraints:
            behavior=one_of(
                name for name, behavior in study.behaviors.items() if behavior.testbed
            ),
        priority: 100
        group:
            "data"
        resources:
            mem_mb=memory(2000),
            runtime=minutes(20),
        params:
            study=study_path,
            code=code("testbed-rows"),
            settings=lambda w: settings(
                study.behaviors[w.behavior].testbed,
                study.behaviors[w.behavior].max_rows,
                study.behaviors[w.behavior].testbed_draw,
                study.behaviors[w.behavior].testbed_words,
                study.rephrased_prompts,
                study.seed,
            ),
        shell:
            "isaerft testbed-rows --study {params.study:q} --behavior {wildcards.behavior} > {log} 2>&1"
