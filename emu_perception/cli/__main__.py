"""`python -m emu_perception.cli`, the same as `emu`."""

from emu_perception.cli import main

if __name__ == "__main__":
    main()
