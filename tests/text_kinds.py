"""Texts of every kind that tokenizers are known to stumble over, all of them short: name -> text."""

from __future__ import annotations

TEXT_KINDS: dict[str, str] = {
    # Scripts.
    "english": "The cat sat on the mat, and the dog (“Rex”) didn’t mind — it’s 5 o’clock.",
    "german": "Größere Töpfe für fünfzig Gäste; die Straße, naïve façade.",
    "russian": "Съешь же ещё этих мягких французских булок, да выпей чаю.",
    "greek": "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία.",
    "chinese": "人人生而自由，在尊严和权利上一律平等。他们赋有理性和良心。",
    "japanese": "すべての人間は、生まれながらにして自由であり、ｶﾀｶﾅも。",
    "korean": "모든 인간은 태어날 때부터 자유로우며",
    "thai": "มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกัน",
    "hindi": "सभी मनुष्यों को गौरव और अधिकारों के क्षेत्र में",
    "tamil": "மனிதப் பிறவியினர் சகலரும் சுதந்திரமாகவே",
    "arabic": "يُولَدُ جَمِيعُ ٱلنَّاسِ أَحْرَارًا",
    "hebrew": "כל בני האדם נולדו בני חורין",
    "mixed directions": "abc שלום 123 مرحبا \u202bdef\u202c \u2067x\u2069",
    "amharic": "የሰው ልጅ ሁሉ ሲወለድ ነጻ",
    "outside the basic plane": "𝒜𝒷𝒸 𐍈𐌰𐌹 𠀀𠀁 🀄 𓀀",
    # Marks, joins and forms.
    "decomposed": "e\u0301 a\u0308o\u0302\u0323 n\u0303",
    "decomposed hangul": "\u1112\u1161\u11ab\u1100\u1173\u11af",
    "compatibility forms": "ﬁne ① ½ Ⅷ ｆｕｌｌ ㎏ ª º ² ™",
    "kelvin and friends": "\u212a \u212b \u2126 \u1e9e ı İ ſ",
    "many marks": "z" + "\u0300\u0301\u0302\u0303\u0304\u0305" * 4 + "algo",
    "emoji": "😀 👍🏽 👩\u200d👩\u200d👧\u200d👦 🏳\ufe0f\u200d🌈 🇩🇪🇫🇷 1\ufe0f\u20e3",
    # White space and what is not seen.
    "spaces": "a  b   c    d",
    "edges": "  a text with blanks around it   ",
    "tabs and lines": "\tone\n\n\ttwo \n three\r\nfour\rfive\n\n\n",
    "kinds of spaces": "a\u00a0b\u2003c\u3000d\u2009e\u202ff\u205fg\u1680h\u0085i\u2028j\u2029k",
    "zero width": "a\u200bb\u200cc\u200dd\u2060e\ufefff\u00adg\u180eh",
    "byte-order mark": "\ufeffA text.",
    "control characters": "a\x01b\x02\x1b[31mred\x7f\x80\x9f\x0b\x0c",
    "only spaces": "     ",
    "only lines": "\n\n\n",
    "one space": " ",
    "nothing": "",
    "one letter": "x",
    # Edges of Unicode.
    "private use": "\ue000\uf8ff\U000f0000\U0010ffff",
    "beside the surrogates": "\ud7ff\ue000 \U00010000",
    "half a surrogate pair": "a\ud800b",
    "not characters": "\ufffe\uffff\ufdd0 \U0001fffe",
    "replacement character": "a\ufffdb\ufffd\ufffd",
    "NUL": "a\x00b",
    # Code, figures, addresses.
    "code": "def f(x):\n    if x != 0:\n\t\treturn  {'a': [1, 2]}  # why?\n",
    "figures": "1234567890 3.14159 1,000,000 −5 1e-10 ١٢٣ १२३ 0x1F",
    "addresses": "https://example.org/a?b=c&d=%20e#f me@example.org C:\\dir\\file.txt",
    "mark-up": "<p class=\"x\">a &amp; b</p> **bold** `code` $x^2$ [a](b)",
    "json": '{"a": [1, -2.5e3, null, true], "b": "\\u00e9\\n"}',
    # Names and marks that mean something to tokenizers.
    "special tokens": "a<|endoftext|>b</s> <s>[UNK] [SEP] <unk><pad><eos>",
    "byte tokens": "<0x41> <0x0A><0xFF>",
    "marks of tokenizers": "Ġthe Ċ ▁the a▁b ##ing </w> Â",
    "added token": "one<tool>two <tool> three",
    # Repeats.
    "letters": "a" * 300,
    "dots": "." * 120 + "…" * 40,
    "long digits": "7" * 200,
    "long words": "Donaudampfschifffahrtsgesellschaftskapitän" * 4,
    "marks alone": "\u0301" * 60,
    "joiners alone": "👩\u200d" * 30,
    "spaces inside": "a" + " " * 100 + "b",
}  # fmt: skip
