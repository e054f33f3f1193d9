"""Machines and what runs on them: containers, their input, output and storage. Knows no API and no database."""
