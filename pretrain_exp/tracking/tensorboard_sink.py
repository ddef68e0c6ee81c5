"""TensorBoard event files in <folder>/tensorboard/, filled from files: one for each call that had something to send."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pretrain_exp.tracking.metrics import RESERVED, Row
from pretrain_exp.tracking.sync import Start

if TYPE_CHECKING:
    import pyarrow as pa

TABLE_ROWS = 200  # shown as text; the whole table is the Parquet file


class TensorboardSink:
    """The event files of one run. A file that a call left half done is replaced by the next."""

    title = "TensorBoard"
    destination = "tensorboard"

    def __init__(self) -> None:
        self.writer: Any = None  # tensorboardX.SummaryWriter while open
        self._step = 0

    def errors(self) -> tuple[type[Exception], ...]:
        return (ImportError, OSError)

    def fallback(self) -> None:
        return None

    def open(self, start: Start) -> None:
        from tensorboardX import SummaryWriter

        folder = start.folder / "tensorboard"
        for file in folder.glob("*.part*"):
            if int(file.name.rpartition(".part")[2]) >= start.part:
                file.unlink()
        self.writer = SummaryWriter(logdir=str(folder), filename_suffix=f".part{start.part}")
        self._step = start.step

    def log_rows(self, rows: Iterable[Row]) -> None:
        for row in rows:
            for name in row:
                if name not in RESERVED:
                    self.writer.add_scalar(name, row[name], int(row["step"]), walltime=row.get("time"))

    def log_table(self, name: str, table: pa.Table) -> None:
        lines = [table.column_names, ["---"] * table.num_columns]
        lines += [list(map(str, row.values())) for row in table.slice(0, TABLE_ROWS).to_pylist()]
        text = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
        if table.num_rows > TABLE_ROWS:
            text += f"\n\nThe first {TABLE_ROWS} of {table.num_rows} rows."
        self.writer.add_text(f"table/{name}", text, self._step)

    def log_image(self, name: str, path: Path) -> None:
        import numpy as np
        from PIL import Image

        with Image.open(path) as picture:
            pixels = np.asarray(picture.convert("RGB"))  # (height, width, 3), uint8
        self.writer.add_image(f"picture/{name}", pixels, self._step, dataformats="HWC")

    def close(self) -> None:
        self.writer.close()
