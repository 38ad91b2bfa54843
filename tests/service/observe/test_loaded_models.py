"""Metrics of several processes tell of loaded models, and of those that could not be loaded."""

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from service.observe.loaded_models import MODEL_INFO, MODEL_LOADS, LoadedModels


def test_only_the_series_of_versions_that_were_unloaded_are_left_out() -> None:
    values, shown = CollectorRegistry(), CollectorRegistry()
    info = Gauge(MODEL_INFO, "As all processes tell it.", ["model", "version"], registry=values)
    loads = Counter(MODEL_LOADS, "Loads.", ["outcome", "model", "version"], registry=values)
    Counter("yolox_requests", "No model's.", registry=values)
    for version, loaded in (("1", 0), ("2", 1)):
        info.labels("cats", version).set(loaded)
        loads.labels("ok", "cats", version).inc()
    loads.labels("failed", "cats", "1").inc()
    loads.labels("failed", "cats", "3").inc()
    # Told by a process that has ended, with its version.
    loads.labels("ok", "cats", "4").inc()
    shown.register(LoadedModels(values))
    text = generate_latest(shown).decode()
    assert 'version="1"' not in text
    assert 'version="4"' not in text
    assert MODEL_LOADS + '{model="cats",outcome="ok",version="2"} 1.0' in text
    assert MODEL_LOADS + '{model="cats",outcome="failed",version="3"} 1.0' in text
    assert "yolox_requests_total 0.0" in text
