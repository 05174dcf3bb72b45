"""Where a fit tells how it goes: TensorBoard, MLflow, or an object of one's own; `pg.fit(..., loggers="tensorboard")`.

logger   what a logger is asked for       tensorboard, mlflow  the two that have names
series   which steps, and their numbers   telling              all of a fit's, none of which can end it
"""

from probgen.loggers.logger import About, Ending, Logger
from probgen.loggers.mlflow import MLflow
from probgen.loggers.tensorboard import TensorBoard

__all__ = ["About", "Ending", "Logger", "MLflow", "TensorBoard"]
