"""Search engines that a student may ask."""

from ovd_jax.search.base import SearchBackend


def make_search(config) -> SearchBackend:
    from ovd_jax.search.standin import Bm25World, LocalSim
    if config.search.backend == "bm25":
        return Bm25World()
    from ovd_jax import build
    from ovd_jax.sampling.sampler import Sampler
    import functools
    folder = build.find_model(config.search.model, "teacher")
    tok = build.load_tokenizer(folder)
    model = build.load_model(folder, config)
    s = Sampler(tokenizer=tok, stop_ids=build.stop_ids(folder, tok), max_new_tokens=48, temperature=0.5, min_prompts=32)
    return LocalSim(functools.partial(s, model), tok, config.search.noisy)
