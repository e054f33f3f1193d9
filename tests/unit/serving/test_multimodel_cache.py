"""The books about many models: who makes room for whom, in the container and on disk."""

from __future__ import annotations

from raymaker.serving.multimodel_cache import ModelCache


def cache_of(*names: str, limit_bytes: int = 100, loaded: bool = True) -> ModelCache:
    """Models of ten bytes each, used in this order."""
    cache = ModelCache(limit_bytes)
    for name in names:
        cache.add(name, 10).is_loaded = loaded
    return cache


def name_of(model: object) -> str | None:
    return getattr(model, "name", None)


def test_the_least_recently_used_model_is_unloaded_first() -> None:
    cache = cache_of("a", "b", "c")
    cache.begin_use("a")
    cache.end_use("a")
    assert name_of(cache.next_to_unload()) == "b"


def test_a_model_that_is_used_or_waited_for_stays() -> None:
    cache = cache_of("a", "b")
    cache.begin_use("a")
    cache.begin_use("a")
    cache.begin_use("b")
    assert cache.next_to_unload() is None
    cache.end_use("a")
    assert cache.next_to_unload() is None
    cache.end_use("a")
    assert name_of(cache.next_to_unload()) == "a"
    cache.begin_use("not here yet")
    cache.end_use("not here yet")


def test_only_loaded_models_are_unloaded_and_a_new_container_holds_none() -> None:
    cache = cache_of("a", loaded=False)
    cache.add("b", 10).is_loaded = True
    assert name_of(cache.next_to_unload()) == "b"
    cache.forget_loaded()
    assert cache.next_to_unload() is None
    assert name_of(cache.find("a")) == "a"


def test_models_leave_the_disk_only_where_it_is_over_its_limit() -> None:
    cache = cache_of("a", "b", "c", limit_bytes=20)
    cache.begin_use("a")
    victim = cache.next_to_remove()
    assert name_of(victim) == "b"
    cache.remove(victim)
    assert cache.next_to_remove() is None
    assert cache.find("b") is None


def test_a_model_for_nobody_is_found_only_while_it_is_loaded_and_unused() -> None:
    cache = cache_of("a")
    assert name_of(cache.find_unused("a")) == "a"
    cache.begin_use("a")
    assert cache.find_unused("a") is None
    assert cache.find_unused("nowhere") is None
