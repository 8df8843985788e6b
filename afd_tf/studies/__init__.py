"""Studies: many runs planned, run, resumed, verified and compared."""
