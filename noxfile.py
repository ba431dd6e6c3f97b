"""`nox -s matrix`: converted folders on every release of transformers that they are for."""

import nox


@nox.session(python=False)
def matrix(session: nox.Session) -> None:
    """Each release of tests/test_matrix.py in an isolated environment, cached between runs."""
    session.run("python", "-m", "pytest", "tests/test_matrix.py", *session.posargs, env={"NEZHA_MATRIX": "all"})
