for task in TASKS.of("tables"):

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
            f"logs/tables/{task.key}.log",
        threads: 1
        resources:
            mem_mb=1000,
            runtime=10,
        shell:
            "{params.command} 2> {log}"
