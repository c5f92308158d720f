"""The laboratory: plan, carry out, judge, report."""
