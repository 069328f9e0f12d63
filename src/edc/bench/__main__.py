"""The process that measures one case: ``python -m edc.bench '[CASE, DEVICE, ...]'`` prints its row as JSON."""

import json
import os
import sys
import threading


def end_with_parent() -> None:
    """End this process when its standard input is closed: when the process that started it has ended, however."""
    os.read(0, 1)
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=end_with_parent, daemon=True).start()  # before anything that takes time
    from edc.bench.cases import Case
    from edc.bench.measure import measure
    from edc.errors import EdcError

    case, *arguments = json.loads(sys.argv[1])
    try:
        print(json.dumps(measure(Case(**case), *arguments)))
    except EdcError as error:
        sys.exit(f"edc: {error}")
