"""Options of train.py for a machine without the data and the hardware of the project:
`python train.py $(python -m tests.small_data)`."""

from pathlib import Path
from tempfile import mkdtemp

from tests.conftest import HARDWARE, write_small_data

print(*HARDWARE, *write_small_data(Path(mkdtemp())))
