"""`make bench`: what a run costs, next to the plain ways of doing the same, on real parts."""
