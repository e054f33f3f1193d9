"""Ray, as far as the platform goes: starting or joining a cluster, and the long-lived actors on it.

The only room of the platform that imports Ray. Nothing is imported here: every process of the platform passes by.
"""
