"""Machines that wait for jobs: how many, which, and for whom they are kept. Pure, but for what asks the database."""
