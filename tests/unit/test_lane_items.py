"""How long a lane bears with an upstream run, against how long it stays itself."""

import pytest

from activities.lane_items import CANCEL_FOR, NOT_FOUND_FOR
from workflows.batch_contract import BatchTiming


@pytest.mark.parametrize("bears", [CANCEL_FOR, NOT_FOUND_FOR])
def test_a_lane_stays_long_enough_to_give_a_run_up(bears: float) -> None:
    """A lane's next turn begins to count anew: within one turn it comes to an end, wherever in the
    first half of it that began. Else a batch never ends whose run is gone, or can't be cancelled.
    """
    assert bears < BatchTiming().stay / 2
