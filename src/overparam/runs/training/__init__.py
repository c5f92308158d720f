"""Training: one loop, its timetable, its optimizers and its states."""
