"""Awkward text: what breaks tokenizers that were only shown English."""

TEXTS = {
    "empty": "",
    "space": " ",
    "plain": "The quick brown fox can't jump over 13 lazy dogs, we'll see; it's 3.14!",
    "capitals": "HTTPServer iPhone XMLHttpRequest CamelCASE",
    "spaces": "  two   three    four     five      six        eight ",
    "tabs and lines": "\ta\t\tb\n\nc\r\n\r\nd\n \n  \n\t\n",
    "code": "def f(x):\n    if x > 1:\n\treturn x[::-1]  # !=, ==, ->, <<=\n\n\n",
    "digits": "0 12 345 6789 1234567890 ١٢٣ ½ Ⅷ 1_000,000.00",
    "accents": "naïve café Ångström Zażółć gęślą jaźń e\u0301 n\u0303 A\u030a",
    "cjk": "你好，世界。日本語のテスト、カタカナ。한국어 시험. 𠀀𠮷",
    "rtl": "مرحبا بالعالم \u200fשלום עולם\u200e abc \u202bdef\u202c",
    "indic": "नमस्ते दुनिया ગુજરાતી தமிழ் ไทยทดสอบ",
    "emoji": "😀👍🏽👩‍🚀👨‍👩‍👧‍👦🇩🇪🏳️‍🌈 ok ☺️❤",
    "control": "a\x00b\x01c\x07d\x1be\x7ff\x85g\x9fh",
    "invisible": "a\u00a0b\u00adc\u200bd\u2028e\u2029f\u3000g\ufeffh\u180ei",
    "unassigned": "\ufffd \ufffe \U0010ffff \ue000 \U000e0001",
    "lone surrogates": "a\ud83db\udc00c".encode("utf-16", "surrogatepass").decode("utf-16", "replace"),
    "special tokens": "<s>a</s> <|im_start|>user\n<|im_end|><|endoftext|><bos> <eos>x<pad><unk>[INST] [/INST]",
    "nearly special": "< s > <|im_start| > <|im_end <0x41> <0xE4> ▁a▁▁b Ġa Ċ ##ing",
    "byte fallback": "žžž ☃☃ \u0378 🫠🫠🫠 ʘ‿ʘ",
    "quotes": "“a” ‘b’ «c» 'd' \"e\" ``f'' …—–-",
    "ligatures": "ﬁ ﬃ Ⅳ ㎏ ①② ａｂｃ ｶﾞ ǆ ß İı",
    "one long word": "a" * 5000 + "é" * 2000,
    "many spaces": "x" + " " * 20000 + "y",
    "many lines": "\n" * 3000 + "end",
    "very long": "Lorem ipsum 你好 😀 dolor sit amet, 42 consectetur.\n" * 1000,
}

# What tiny tokenizers are trained on: several scripts, so that merges cross bytes of a character.
TRAINING = [
    "The quick brown fox jumps over the lazy dog. It's what we'll see, can't you?\n",
    "def function(argument):\n    return argument + 1  # comment\n\n",
    "你好世界，这是一个测试。日本語のテストです。한국어 시험입니다.\n",
    "Привет, мир! Это проверка. naïve café Ångström\n",
    "مرحبا بالعالم שלום עולם नमस्ते दुनिया\n",
    "😀👍👩‍🚀 12345 67890 2024   \t\t   spaces\n",
] * 20
