"""`python -m pet` is the command `pet`."""

from pet.cli import main

if __name__ == "__main__":
    main()
