"""Commands of `emu`, one file per group. Heavy modules are imported when a command runs."""
