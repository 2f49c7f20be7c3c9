"""Early stopping for those who want it."""

import sys
from typing import Any

from lightning.pytorch import callbacks


class EarlyStopping(callbacks.EarlyStopping):
    """Lightning's, which waits for ever unless `patience` is given: where the learning rate falls to
    zero at the end of the fit, the best epochs are the last ones.

    Args:
        patience: stop after so many validations without a better score.
    """

    def __init__(self, patience: int | None = None, **kwargs: Any) -> None:
        super().__init__(patience=sys.maxsize if patience is None else patience, **kwargs)
        self.given = patience

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"patience": self.given}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        # A fit that goes on may be asked for another patience.
        super().load_state_dict(state_dict | {"patience": self.patience})
