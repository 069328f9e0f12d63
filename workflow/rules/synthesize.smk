for task in TASKS.of("synthesize"):

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
            f"logs/synthesize/{task.key}.log",
        threads: TASKS.plan.machine.threads
        resources:
            gpu=task.gpu,
            mem_mb=8000,
            runtime=720,
        shell:
            "{params.command} 2> {log}"
