for task in TASKS.of("pretrain"):

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
            f"logs/pretrain/{task.key}.log",
        threads: TASKS.plan.machine.threads
        resources:
            gpu=task.gpu,
            mem_mb=4000,
            runtime=720,
        shell:
            "{params.command} 2> {log}"
