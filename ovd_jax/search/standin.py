
import re, functools, random
import bm25s
from ovd_jax.search.base import Document
from ovd_jax.tasks.world import World
from ovd_jax.seeds import derive

def docs_of(text):
    out=[]
    for line in text.splitlines():
        m=re.fullmatch(r"Doc \d+\(Title: (.*?)\) (.*)", line.strip())
        if m: out.append(Document(m[1], m[2]))
    return tuple(out)

class Bm25World:
    def __init__(self, seed=0, topk=2):
        self.docs=World(seed).documents(); self.topk=topk
        self.ix=bm25s.BM25(k1=.9,b=.4)
        self.ix.index(bm25s.tokenize([d.title+" "+d.text for d in self.docs],show_progress=False),show_progress=False)
    def search(self, queries, *, seed):
        out=[]
        for q in queries:
            r,s=self.ix.retrieve(bm25s.tokenize([q.text],show_progress=False),k=self.topk,show_progress=False)
            out.append(tuple(self.docs[i] for i in r[0]))
        return out
    def metrics(self): return {}
    draws=False

class LocalSim:
    def __init__(self, generate, tokenizer, noisy=0.):
        self.generate=generate; self.tok=tokenizer; self.noisy=noisy
    def search(self, queries, *, seed):
        rng=random.Random(seed)
        prompts=[self.tok(f"Search: {q.text}\n{'noisy' if rng.random()<self.noisy else 'useful'}\n",add_special_tokens=False)["input_ids"] for q in queries]
        groups=self.generate(prompts,seed=derive(seed,"sim"))
        return [docs_of(self.tok.decode(c.tokens,skip_special_tokens=True)) for (c,) in groups]
    def metrics(self): return {}
