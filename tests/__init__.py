"""Tests mirror the packages; `from tests.launch.fake_server import ...` works in all of them."""
