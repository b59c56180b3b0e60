"""The published systems, each as one choice a stage.

``tuned`` says what a paper chose with labels, or what its released code does with them: there its
figures are an upper bound for users, who have none.
"""

from __future__ import annotations

from byname.recipe import Recipe

__all__ = ["RECIPES"]

_NO_FILE = "Needs a prompt file (--prompts FILE.json); 'byname prompts make --style {}' writes one."
_RADFORD = (
    "Radford et al., Learning Transferable Visual Models From Natural Language Supervision, "
    "ICML 2021"
)


def _recipe(
    name: str,
    title: str,
    paper: str,
    formula: str,
    defaults: str,
    *,
    prompts: str = "templates[set=imagenet]",
    weigh: str = "mean",
    score: str = "cosine",
    refine: str | None = None,
    decide: str = "argmax",
    tuned: str = "nothing",
    notes: str = "",
) -> Recipe:
    return Recipe(
        name, title, prompts, weigh, score, refine, decide, paper, formula, defaults, tuned, notes
    )


_ALL = (
    _recipe(
        "plain",
        "One template, the class with the most similar name",
        _RADFORD,
        "S = scale * <x, t_k>",
        "the template is the paper's; the scale is the encoder's",
        prompts="templates[set=single]",
    ),
    _recipe(
        "ensemble",
        "80 templates, averaged for each class",
        _RADFORD,
        "S = scale * <x, unit(mean of the texts of class k)>",
        "80 templates after the ideas of the paper's, in other words",
        tuned="the paper's templates were written by looking at ImageNet accuracy",
        notes="The default. Each other recipe that is a member's name is this one with that member "
        "in its stage.",
    ),
    _recipe(
        "haprompts",
        "Hierarchy-aware texts: how a class differs from its peers, what it is a kind of",
        "Liang & Davis, Making Better Mistakes in CLIP-Based Zero-Shot Classification with "
        "Hierarchy-Aware Language Prompts, arXiv 2503.02248",
        "as ensemble, over comparisons with tree peers, path texts and general texts",
        "the published queries; see docs/recipes/haprompts.md",
        prompts="haprompts[variant=full]",
        notes=_NO_FILE.format("haprompts")
        + " --decide crm can make mistakes milder where probabilities are calibrated.",
    ),
    _recipe(
        "hie",
        "Texts in levels; finer levels count while they keep agreeing better",
        "Ren et al., ChatGPT-Powered Hierarchical Comparisons for Image Classification, "
        "NeurIPS 2023",
        "S = scale * (lam * s_0 + (1 - lam) * mean of the increasing prefix of s_1, s_2, ...)",
        "lam = 0.5, the middle of the published range; eta = 0 as published",
        prompts="haprompts[variant=full]",
        score="hie",
        tuned="lam, for each data set",
        notes="Needs a prompt file with levels: one made by haprompts, or {class: [[texts of "
        "level 0], [texts of level 1], ...]}.",
    ),
    _recipe(
        "cpe",
        "Templates weighed by how clearly they let the worst classes win",
        "Shao, Shi, Yang, Guo & Li, Examining the Achilles' Heel of CLIP Models, arXiv 2310.03324",
        "weight of template p = softmax(mean margin of the worst classes under p / temperature)",
        "reconstructed from abstract and reviews; see docs/recipes/cpe.md",
        weigh="cpe",
        tuned="not known",
        notes="Learns from the unlabeled images. 'cpe[per_class=true]' gives the worst classes "
        "weights of their own.",
    ),
    _recipe(
        "coder",
        "Attributes, look-alikes and synonyms; close calls settled by contrasts",
        "Yi, Ren, Zhan & Ye, Leveraging Cross-Modal Neighbor Representation for Improved CLIP "
        "Classification, CVPR 2024, arXiv 2404.17753",
        "S = scale * mean of the cosines to attributes, look-alikes and the best name; close calls "
        "are settled by texts about pairs",
        "see docs/recipes/coder.md",
        prompts="atg",
        score="coder",
        tuned="the gap below which classes are re-ranked, for each data set; how is not said",
        notes="Needs a prompt file (--prompts FILE.json) with texts of the kinds name, attribute, "
        "analogous and synonym, and for close calls texts about pairs.",
    ),
    _recipe(
        "dclip",
        "Descriptors of a class, each compared by itself, so that it can be explained",
        "Menon & Vondrick, Visual Classification via Description from Large Language Models, "
        "ICLR 2023",
        "S = scale * mean over the descriptors r of class k of <x, t_r>",
        "mean, as published; the class name stands in each sentence",
        prompts="descriptors",
        weigh="mean_similarity",
        score="describe",
        notes=_NO_FILE.format("descriptors") + " 'byname explain' shows each descriptor's part.",
    ),
    _recipe(
        "cupl",
        "An LLM's sentences about each class, averaged",
        "Pratt, Covert, Liu & Farhadi, What Does a Platypus Look Like?, ICCV 2023",
        "as ensemble, over LLM sentences",
        "3 questions, 10 sentences each, temperature 0.99 (the paper's 'base')",
        prompts="cupl",
        tuned="the questions of 'full' were written for each data set",
        notes=_NO_FILE.format("cupl") + " With templates as well: --prompts templates+FILE.json, "
        "by count, or --weigh merge[mix=equal].",
    ),
    _recipe(
        "waffle",
        "Random words and characters in the place of descriptors; needs no LLM",
        "Roth et al., Waffling around for Performance, ICCV 2023",
        "S = scale * mean over 30 random descriptors d, the same for all classes, of <x, t_kd>",
        "15 pairs, as published; alphabet a-z and digits instead of the LLM's characters",
        prompts="waffle",
        weigh="mean_similarity",
        notes="Also the control for every LLM method. With a high-level concept: --prompts "
        "'waffle[concept=food]'.",
    ),
    _recipe(
        "chils",
        "Classify among subclasses, then answer with their class",
        "Novack et al., CHiLS: Zero-Shot Image Classification with Hierarchical Label Sets, "
        "ICML 2023",
        "score of class k = max over its subclasses j of p(j) * p(k)",
        "10 subclasses by an LLM, re-weighting on, as published",
        prompts="subclasses",
        score="chils",
        tuned="the words of the question, for each data set",
        notes=_NO_FILE.format("subclasses"),
    ),
    _recipe(
        "adaptclipzs",
        "Visual, habitat and region texts; one softmax over all texts of all classes",
        "Saha, Van Horn & Maji, Improved Zero-Shot Classification by Adapting VLMs with Text "
        "Descriptions, CVPR 2024",
        "p(k) proportional to the mean over the texts j of k of softmax over all (k, j)",
        "the encoder's own scale",
        prompts="attributes",
        score="joint_softmax",
        tuned="the encoder, on labelled seen classes: the paper's gains come from that training, "
        "which is not part of this recipe",
        notes=_NO_FILE.format("attributes"),
    ),
    _recipe(
        "perceptionclip",
        "First the context of the photo, then the class given the context; needs no LLM",
        "An et al., PerceptionCLIP, ICLR 2024, arXiv 2308.01313",
        "p(k|x) = sum over contexts z of p(z|x) p(k|x,z)",
        "tau = 3; factors quality and illumination, fixed before any trial",
        prompts="contexts",
        score="perception",
        tuned="tau and the factors, on the test set of each data set in the released code",
    ),
    _recipe(
        "reclap",
        "Sounds described and placed in scenes, for encoders of audio",
        "Ghosh et al., ReCLAP: Improving Zero-Shot Audio Classification by Describing Sounds, "
        "ICASSP 2025",
        "as ensemble, over scene captions",
        "5 descriptions, 10 captions each",
        prompts="sounds",
        tuned="not known",
        notes=_NO_FILE.format("sounds"),
    ),
    _recipe(
        "winclip",
        "Is each thing normal or damaged? (image level)",
        "Jeong et al., WinCLIP: Zero-/Few-Shot Anomaly Classification and Segmentation, CVPR 2023",
        "p = softmax([<x, normal>, <x, anomalous>] / 0.07)[anomalous], class by class",
        "temperature 0.07, 7 and 4 states in 21 templates, as published",
        prompts="states[set=anomaly]",
        score="two_state",
        decide="multilabel",
        notes="--classes names the thing on the photos; the probability is that of damage.",
    ),
    _recipe(
        "presence",
        "Is each finding there or not? Several answers a photo, or none",
        "The usual protocol of zero-shot radiology, as in Blankemeier et al., Merlin, 2024",
        "p_k = softmax([<x, present>, <x, absent>] * scale)[present], class by class",
        "threshold 0.5; temperature 1 / scale",
        prompts="states[set=presence]",
        score="two_state",
        decide="multilabel",
        tuned="thresholds, on the evaluated data, in much of that literature",
    ),
    _recipe(
        "atc",
        "Down the taxonomy level by level; stops where two branches are too close",
        "Level-by-level coding with language models (ATC codes); the beam is byname's",
        "log p(leaf) = sum along its path of log softmax over siblings",
        "softmax at the encoder's scale",
        score="descent",
        decide="descend",
        notes="Needs classes with a tree.",
    ),
    _recipe(
        "clibd",
        "The nearest key of any kind, and its label at each level",
        "Gong et al., CLIBD: Bridging Vision and Genomics for Biodiversity Monitoring, ICLR 2025",
        "S = scale * similarity to the nearest key of class k",
        "1 nearest key; texts name the whole path",
        prompts="paths[ancestors=all]",
        score="keys",
        notes="Needs classes with a tree. Images as keys: --with support=FOLDER.",
    ),
    _recipe(
        "susx",
        "A support set made from names alone, beside CuPL's sentences",
        "Udandarao, Gupta & Albanie, SuS-X: Training-Free Name-Only Transfer, ICCV 2023",
        "S = scale * <x, w_k> + alpha * K1 + gamma * K2, affinities to the support set",
        "alpha 1, beta 5.5, gamma 1, fixed by us: there is nothing to choose them on",
        prompts="cupl",
        score="tip_x",
        tuned="alpha, beta and gamma, on labelled validation images",
        notes=_NO_FILE.format("cupl")
        + " Generated or retrieved photos: --with support=FOLDER; else the most confident images.",
    ),
    _recipe(
        "abs",
        "Many crops of each photo against many sentences",
        "Cai et al., From Local Details to Global Context: Advancing Vision-Language Models with "
        "Attention-Based Selection, ICML 2025",
        "score of k = sum over crops and sentences of k of p * u; u = cosine / 0.03, p its softmax",
        "crops of 0.6 to 0.9 of the side, temperature 0.03, as released",
        prompts="cupl",
        score="views",
        tuned="not known",
        notes=_NO_FILE.format("cupl") + " Crops: --with views=uniform[n=50].",
    ),
)
RECIPES: dict[str, Recipe] = {recipe.name: recipe for recipe in _ALL}
