for task in TASKS.of("statistics"):

    rule:
        name:
            task.name
        input:
            TASKS.inputs(task),
        output:
            TASKS.outputs(task),
        params:
            command=task.command,
        log:
            f"logs/statistics/{task.key}.log",
        threads: TASKS.plan.machine.threads
        resources:
            gpu=task.gpu,
            mem_mb=6000,
            runtime=240,
        shell:
            "{params.command} 2> {log}"
