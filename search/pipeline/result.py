"""Which network a study file hands over: that of its last search or, if it may go back, an earlier one of higher score.

Networks are chosen by the holdout, which flatters them: of many, the one that happens to suit it is taken. Near
`accuracy_full` that decides whether the last step paid, so scores are compared at an accuracy lower by so much.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from pruner.system.files import read_object, write_json
from search.pipeline.remaining import Progressed
from search.results.records import best
from search.storage.folder import StudyFolder
from search.study.spec import StudySpec


def handed_over(done: Sequence[Progressed], flatters: float | None) -> int:
    """Which of the searches that were run has the result, by its place.

    Args:
        done: The searches with their trials, in order.
        flatters: The last one's `holdout_flatters`; None: its own network is the result.

    Returns:
        The place of the highest score at an accuracy lower by `flatters`, among the searches that ask the same of a
        network as the last one does; of equals, the last.
    """
    if flatters is None:
        return len(done) - 1
    wanted = _asked(done[-1].spec)
    scores = {place: _lasting(each, flatters) for place, each in enumerate(done) if _asked(each.spec) == wanted}
    return max(scores, key=lambda place: (scores[place], place))


def goes_back(done: Sequence[Progressed], place: int, flatters: float | None) -> str:
    """Why the search at that place has the result and not the last one, as a sentence; empty if it is the last."""
    if flatters is None or place == len(done) - 1:
        return ""
    before, last = (_lasting(each, flatters) for each in (done[place], done[-1]))
    return (
        f"The result is the best network of {done[place].spec.name}: at an accuracy {100 * flatters:.2f} points lower "
        f"than on the holdout its score is {before:.2f}, that of {done[-1].spec.name} {last:.2f}."
    )


def _lasting(search: Progressed, flatters: float) -> float:
    """The score of its best network at an accuracy lower by `flatters`; the lowest of all without a network."""
    rule, top = search.spec.graded_by, best(search.found)
    if rule is None or top is None or top.mflops is None or top.accuracy is None:
        return -math.inf
    return rule(top.mflops, top.accuracy - flatters)


def _asked(spec: StudySpec) -> tuple[object, ...]:
    return spec.goal, spec.graded_by, spec.constraints, spec.eval_images


def keep_result(last: StudyFolder, name: str) -> None:
    """Note beside the search that ended a file which one has the result, for the commands that export it."""
    write_json(last.result, {"study": name})


def result_of(begun: Sequence[tuple[StudySpec, StudyFolder]]) -> tuple[StudySpec, StudyFolder]:
    """That of the studies begun, in order, whose network the file hands over: the one noted beside the last, or it."""
    last = begun[-1]
    name = read_object(last[1].result).get("study")
    return next((each for each in begun if each[0].name == name), last)
