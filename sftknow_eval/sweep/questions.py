"""What is asked at every ratio: requests made once, outcomes of each model that answers them.

Our own tasks are asked as `lm_eval.evaluate` asks them, with the same requests and the same
judge; but they are built once for all models, facts of several sets go into the same batches,
and an answer that was judged before is not judged again. Other tasks go through
`lm_eval.evaluate` itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sftknow_eval.errors import SettingsError
from sftknow_eval.evaluation.documents import TaskData, load_task_data
from sftknow_eval.evaluation.install import tasks_path
from sftknow_eval.evaluation.results import Outcome, outcomes_of
from sftknow_eval.evaluation.run import FEWSHOT_SEED, task_manager
from sftknow_eval.evaluation.settings import read_settings
from sftknow_eval.sweep.points import task_metrics
from sftknow_eval.sweep.request import SweepRequest


class FactQuestions:
    """The requests of our tasks for one set of facts.

    Args:
        request: names tasks, shots and limit.
        metadata: what selects the facts, beside the request's own.

    Raises:
        DataError, TemplateError, MasteryError, SettingsError: no documents can be made.
    """

    def __init__(self, request: SweepRequest, metadata: Mapping[str, Any]) -> None:
        self._request = request
        self._metadata = request.task_metadata | dict(metadata)
        self.data: TaskData = load_task_data(read_settings(self._metadata))
        self._asked: list[tuple[Any, Any]] = []
        self._judged: dict[tuple[str, str], dict[str, Any]] = {}

    @property
    def fact_ids(self) -> list[str]:
        """Ids of the facts, in the order of their documents."""
        return [document["id"] for leaf in self.data.leaves.values() for document in leaf]

    def requests(self, engine: Any) -> list[Any]:
        """Return lm-eval's requests, one a fact, in an order that never changes.

        Args:
            engine: lm-eval's model, for its chat template.
        """
        if not self._asked:
            self._asked = [pair for task in self._tasks() for pair in self._of_task(task, engine)]
        return [instance for _, instance in self._asked]

    def _tasks(self) -> list[Any]:
        tasks = task_manager(self._metadata).load(self._request.fact_tasks)["tasks"]
        return list(tasks.values())

    def _of_task(self, task: Any, engine: Any) -> list[tuple[Any, Any]]:
        task.set_config(key="num_fewshot", value=self._request.num_fewshot or 0)
        task.set_fewshot_seed(seed=FEWSHOT_SEED)
        chat = self._request.metadata.get("style") == "chat"
        task.build_all_requests(
            limit=self._request.limit,
            rank=0,
            world_size=1,
            apply_chat_template=chat,
            fewshot_as_multiturn=chat,
            chat_template=engine.apply_chat_template if chat else None,
            tokenizer_name=engine.tokenizer_name if chat else "",
        )
        # The document that holds an empty stratum's place has no id, and need not be asked.
        return [(task, instance) for instance in task.instances if instance.doc["id"]]

    def outcomes(self, texts: Sequence[str]) -> list[Outcome]:
        """Return the outcomes of the answers to `requests`, ordered by fact id."""
        samples = []
        for (task, instance), text in zip(self._asked, texts, strict=True):
            key = instance.doc["id"], text
            if key not in self._judged:
                self._judged[key] = task.process_results(instance.doc, [text])
            sample = {"doc": instance.doc, "arguments": [instance.args], "resps": [[text]]}
            samples.append(sample | self._judged[key])
        return outcomes_of({"samples": {"sftknow_cbqa_asked": samples}})


class OtherTasks:
    """Tasks of lm-eval that are not ours.

    Raises:
        SettingsError: lm-eval does not know one of all the request's tasks.
    """

    def __init__(self, request: SweepRequest) -> None:
        self._request = request
        self._manager = _task_manager(request)

    def ask(self, engine: Any) -> dict[str, dict[str, Any]]:
        """Return the metrics of each task for the model that the engine holds."""
        from lm_eval import evaluate

        request, names = self._request, self._request.other_tasks
        if not names:
            return {}
        loaded = self._manager.load(names)
        for task in loaded["tasks"].values():
            if request.num_fewshot is not None:
                task.set_config(key="num_fewshot", value=request.num_fewshot)
            task.set_fewshot_seed(seed=FEWSHOT_SEED)
        chat = request.metadata.get("style") == "chat"
        results = evaluate(
            lm=engine,
            task_dict=loaded,
            limit=request.limit,
            apply_chat_template=chat,
            fewshot_as_multiturn=chat,
            log_samples=False,
        )
        return task_metrics(results, names)


def _task_manager(request: SweepRequest) -> Any:
    """Return a task manager that knows the tasks asked for."""
    from lm_eval.tasks import TaskManager

    own = [str(request.include_path)] if request.include_path else []
    folders = [str(tasks_path()), *own]
    metadata = request.task_metadata
    # lm-eval's own index takes many seconds, ours none.
    manager = TaskManager(include_path=folders, include_defaults=False, metadata=metadata)
    if set(request.tasks) <= set(manager.all_tasks):
        return manager
    manager = TaskManager(include_path=folders, metadata=metadata)
    if unknown := sorted(set(request.tasks) - set(manager.all_tasks)):
        raise SettingsError(
            f"lm-eval knows no task '{unknown[0]}'. 'sftknow lm-eval ls tasks' lists those it "
            "knows; --include-path DIR adds your own."
        )
    return manager
