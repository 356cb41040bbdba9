"""`python -m localrun`: the same as the command `localrun`."""

from localrun.cli.main import main

if __name__ == "__main__":
    main()
