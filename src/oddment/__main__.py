"""`python -m oddment` is `oddment`."""

from oddment.cli import main

if __name__ == "__main__":
    main()
