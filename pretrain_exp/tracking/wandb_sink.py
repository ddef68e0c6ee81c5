"""A Weights & Biases run, filled from files.

The step of W&B is the number of the line, which never falls; the training step stands beside as `train/step` or
`eval/step` (and so for every room), the x axis of its metrics. So an evaluation of an early checkpoint that comes late
is not dropped, as W&B drops what is logged for an earlier step of its own. Offline, W&B ignores `resume`: each call
leaves a further folder with the same run id, which continues the numbers; `wandb sync <folder>/wandb/offline-run-*`
uploads them in order.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pretrain_exp.store.network import unreachable
from pretrain_exp.tracking.config import WandbConfig
from pretrain_exp.tracking.metrics import RESERVED, Row
from pretrain_exp.tracking.sync import Start

if TYPE_CHECKING:
    import pyarrow as pa

TABLE_ROWS = 10_000  # W&B cuts a table there
ROOMS = ("train", "eval", "control", "finding")  # first parts of metrics' names; each has a step of its own
SETTINGS: dict[str, Any] = {
    "silent": True,
    "console": "off",  # this process's output is not the run's
    "disable_git": True,
    "disable_code": True,
    "x_disable_stats": True,  # nor are its temperatures
    "init_timeout": 20.0,
    "login_timeout": 20.0,  # a terminal where nobody answers for the key
    "finish_timeout": 300.0,
    "finish_timeout_raises": True,
}

log = logging.getLogger(__name__)


class WandbSink:
    """W&B runs, one after the other, online or offline.

    Online falls back to offline, for good, where the server cannot be reached or refuses.
    """

    title = "W&B"

    def __init__(self, config: WandbConfig):
        self._use(config)
        self.run: Any = None  # wandb.Run while open
        self._line = 0

    def _use(self, config: WandbConfig) -> None:
        self.config = config
        self.destination = f"wandb-{config.mode}"  # each remembers what it got: what lies on disk is not on the server

    def errors(self) -> tuple[type[Exception], ...]:
        try:
            import wandb
            from wandb.sdk.mailbox.mailbox import MailboxClosedError
            from wandb.sdk.mailbox.mailbox_handle import HandleAbandonedError, ServerResponseError
        except ImportError:  # reported like any other failure of a mirror
            return (ImportError,)
        return (wandb.Error, HandleAbandonedError, ServerResponseError, MailboxClosedError, OSError)

    def fallback(self) -> WandbSink | None:
        if self.config.mode == "offline":
            return None
        log.warning("W&B: going on offline; runs are kept on disk, for `wandb sync`")
        self._use(self.config.model_copy(update={"mode": "offline"}))
        return self

    def open(self, start: Start) -> None:
        """Raises what `errors` names: the server is not there, no key, no space."""
        import wandb

        if self.config.mode == "online":
            problem = unreachable(os.environ.get("WANDB_BASE_URL") or str(wandb.setup().settings.base_url))
            if problem:
                raise ConnectionError(problem)
        self.run = wandb.init(
            dir=str(start.folder),
            id=start.run_id,
            name=f"{start.name}-step{start.step}" if self.config.add_step_to_name else start.name,
            group=start.group,
            entity=self.config.entity,
            project=self.config.project,
            tags=self.config.tags or None,
            config=dict(start.config),
            mode=self.config.mode,
            resume="allow" if self.config.mode == "online" else None,
            reinit="create_new",
            settings=wandb.Settings(**SETTINGS),
        )
        for room in ROOMS:
            self.run.define_metric(f"{room}/step", hidden=True)
            self.run.define_metric(f"{room}/*", step_metric=f"{room}/step")
        self._line = start.line

    def log_rows(self, rows: Iterable[Row]) -> None:
        for row in rows:
            values: dict[str, Any] = {name: row[name] for name in row if name not in RESERVED}
            for room in {name.partition("/")[0] for name in values}:
                values[f"{room}/step"] = int(row["step"])
            self._log(values)

    def log_table(self, name: str, table: pa.Table) -> None:
        import wandb

        if table.num_rows > TABLE_ROWS:
            log.warning("W&B: of table %s the first %d of %d rows are sent", name, TABLE_ROWS, table.num_rows)
        rows: list[Any] = [list(row.values()) for row in table.slice(0, TABLE_ROWS).to_pylist()]
        self._log({f"table/{name}": wandb.Table(columns=table.column_names, data=rows)})

    def log_image(self, name: str, path: Path) -> None:
        import wandb

        self._log({f"picture/{name}": wandb.Image(str(path))})

    def close(self) -> None:
        self.run.finish()

    def _log(self, values: dict[str, Any]) -> None:
        self.run.log(values, step=self._line, commit=True)
        self._line += 1
