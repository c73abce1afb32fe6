"""An Assistants-style upstream in one process, for trying things out and for tests.

It shares no code with the client of the Runs protocol, so that the two can't share a misreading.
"""

from runsapi.simulator.faults import load_faults
from runsapi.simulator.scenario import Scenario, ScenarioError, load_scenarios, parse_scenario
from runsapi.simulator.serve import serve

__all__ = [
    "Scenario",
    "ScenarioError",
    "load_faults",
    "load_scenarios",
    "parse_scenario",
    "serve",
]
