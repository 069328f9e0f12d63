for task in TASKS.of("slimming"):

    rule:
        name:
            task.name
        input:
            TASKS.inputs(task),
        output:
            shown(task),
        params:
            command=task.command,
        log:
            f"logs/slimming/{task.key}.log",
        threads: TASKS.plan.machine.threads
        resources:
            gpu=task.gpu,
            mem_mb=6000,
            runtime=1440,
        shell:
            "{params.command} 2> {log}"
