"""`python -m oddment` is `oddment`."""

from oddment.cli import start

if __name__ == "__main__":
    start()
