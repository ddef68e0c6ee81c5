"""`pretrain-exp evaluate` without a process: an executor that starts nothing, and results as they are left."""

from pretrain_exp.eval.base import Score
from pretrain_exp.eval.table import to_table, write_result
from pretrain_exp.executor.base import Outcome
from pretrain_exp.study.jobs import evaluation_specs

FRAMEWORK = "pretrain_exp.framework.huggingface.framework.HuggingFace"


class Recorder:
    """An executor that starts nothing: every job ends in one state."""

    def __init__(self, state, meanwhile=None, message="the reason"):
        self.state, self.waits, self.jobs, self.stores = state, state != "submitted", None, []
        self.local, self.meanwhile, self.message = self.waits, meanwhile, message

    def run(self, jobs, store, planned):
        planned()
        self.jobs = [*(self.jobs or []), *jobs]
        self.stores.append(store)
        if self.meanwhile:
            self.meanwhile()
        return {job.id: Outcome(job, self.state, self.message) for job in jobs}


def score(config, store, identity, right, notes=(), metrics=("acc",)):
    """Leaves what an evaluation would: right or wrong for each item, half as much in the metric `graded`."""
    (spec,) = evaluation_specs(config, None)
    scores = [
        Score("t", item, metric, value / 2 if metric == "graded" else value)
        for item, value in right.items()
        for metric in metrics
    ]
    write_result(spec.folder(store, identity), to_table("perplexity", scores), {"notes": list(notes)})
