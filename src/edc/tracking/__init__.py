"""MLflow runs made from finished runs: a tracking server that is down costs no run and loses no metric.

MLflow takes seconds to import: that happens once there are finished runs to show.
"""

from edc.tracking.sync import TrackingError, enabled, sync

__all__ = ["TrackingError", "enabled", "sync"]
