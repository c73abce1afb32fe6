"""Checks an installation from where it is called, and says what to do about what it finds.

| module | what it checks |
|---|---|
| `finding` | nothing: what every check returns |
| `installation` | Temporal, its namespace, workers, the payload store |
| `upstream` | whether the upstream answers and takes the credentials |
| `runs` | blocked runs, and those whose workflow tasks fail |
| `batches` | those that stand still |
| `orphans` | upstream runs whose run was ended in Temporal |
| `examination` | all of them, in the order in which they are to be mended |
"""

from runlane.doctor.examination import examine
from runlane.doctor.finding import Finding, Fix
from runlane.doctor.upstream import upstream_problem

__all__ = ["Finding", "Fix", "examine", "upstream_problem"]
