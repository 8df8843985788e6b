"""Everything inside one step: objectives, updates, schedules, metrics."""
