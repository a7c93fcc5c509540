"""What of a source can become spoken dialogue at all: rules on raw lines, before an LLM is paid for any."""

from __future__ import annotations

import re

from pipeline.dialogue import Language
from pipeline.text.checks import URL
from pipeline.text.language import language_of
from pipeline.text.words import count_units

__all__ = ["MAX_UNITS", "language_of", "select_fault"]

MAX_UNITS: dict[Language, int] = {"en": 150, "zh": 300}
"""Words (en) or characters (zh) of a raw line. It is read, not spoken, so it may be longer than a turn."""
_PASSAGE: dict[Language, int] = {"en": 60, "zh": 120}  # from here on "the following passage" is one, not a sentence


def _any(*patterns: str, flags: int = re.I) -> re.Pattern[str]:
    return re.compile("|".join(patterns), flags)


_LANGUAGES = (
    r"(?:python|java ?script|typescript|java|c\+\+|c#|\.net|php|ruby|rust|golang|swift|kotlin|perl|bash|shell|sql|mysql"
    r"|html5?|css3?|matlab|react(?:\.js)?|node\.?js|vba|powershell|regex|json|latex|django|flask|pandas|numpy|excel)"
)
_WRITE = (
    r"(?:writ(?:e|ing)|create|creating|implement(?:ing)?|generate|develop(?:ing)?|debug(?:ging)?|fix(?:ing)?|refactor"
    r"|optimi[sz]e|complete|construct|design|build(?:ing)?|give me|provide|code|show me|make|need|edit|rewrite|convert)"
)
_THING = r"(?:function|program|script|code|class|method|algorithm|quer(?:y|ies)|snippet|command|macro|formula|loop|app)"
_WRITE_ZH = "(?:写|编|实现|生成|创建|构造|给出|设计|开发|修改|调试|修复|优化|补全|完成|提供|重构)"
_LANGUAGES_ZH = (
    r"(?:python|java(?:script)?|c\+\+|c#|c语言|php|ruby|rust|go语言|sql|html|css|matlab|react|vue|shell|bash|excel)"
)
_CODE = _any(
    # asks for it
    rf"\b{_WRITE}\b(?:\W+[\w+#.]+){{0,5}}?\W+{_LANGUAGES}\s(?:[\w.]+\s){{0,2}}{_THING}s?\b",
    rf"\b{_WRITE}\b(?:\W+[\w-]+){{0,6}}?\W+{_THING}\s(?:\w+\s){{0,8}}?(?:in|using|with)\s{_LANGUAGES}\b",
    r"\b(?:write|implement|code|create|define|complete|debug)\b (?:an? |the |this )?(?:[\w-]+ ){0,3}?"
    r"(?:functions?|methods?|algorithms?|subroutine|data structure|linked list|unit tests?|sorting)\b",
    r"\b(?:write|implement|code|debug) (?:an? |the |this |some )?(?:[\w-]+ ){0,3}?(?:program|pseudo-?code)\b",
    r"\b(?:write|generate|provide|debug|fix|refactor|optimi[sz]e|explain|review|show me|give me)\b (?:me )?"
    r"(?:some |the |this |a |an |following |sample |example |my )*(?:piece of |lines? of )?(?:source )?code\b"
    r"(?! of (?:conduct|ethics|honou?r)| word| name)",
    r"\bregular expressions? (?:to|that|for|which)\b|\b(?:regex|sql) (?:query|statement|pattern|to|that|for)\b",
    r"\b(?:stack trace|traceback|dockerfile|bash one-liner|css selector|html (?:page|form|tag|element))\b",
    rf"\b{_WRITE} (?:an? |the )?(?:regular expression|regex)|\b(?:css|html|latex) code\b",
    rf"{_WRITE_ZH}(?!下的|的)[^，。！？\n]{{0,16}}?"
    "(?:代码|函数|爬虫|正则|存储过程|单元测试|查询语句|网页|程序(?!员)|算法|类的?方法)",
    rf"{_WRITE_ZH}[^，。！？\n]{{0,10}}?{_LANGUAGES_ZH}",
    rf"用\s?{_LANGUAGES_ZH}[^，,。！？\n]{{0,12}}(?:写|编|实现|画|计算(?!机)|做|处理|爬)",
    r"(?:这段|下面的?|以下|如下)(?:\w{0,8})?(?:代码|程序|函数)|(?:代码|程序)(?:报错|运行结果|的输出)"
    r"|(?:正则|SQL)(?:表达式|语句|查询)",
    # holds it
    r"```|`[^`\n]+`|\bdef \w+\s?\(|#include\b|^\s*(?:import|from) [\w.]+(?: import .+)?;?$",
    r"\bfunction \w*\s?\([^)]*\)\s*\{",
    r"\bpublic (?:static|class|void|int)\b|\b(?:console\.log|System\.out|printf?|len|range|str|int)\(|\w+\.\w+\(\)?",
    r"\bselect\b.{1,80}\bfrom \w+(?: where\b|;)",
    r"</?(?:html|div|p|a|b|i|li|ul|span|body|head|br|td|tr|script|h\d|img)\b[^>]*>",
    r"=>|[=!]==?\s|&&|\|\||\+=|\b(?:var|let|const|int|float) \w+ ?=|\{[^{}\"]*;|;\s*$|(?-i:[a-z]_[a-z])"
    r"|\b(?:for|while|if) ?\(.*\) ?\{",
    r"\\(?:frac|begin|sum|sqrt|int|left|text|alpha|beta|cdot|times)\b|\\[(\[]|\$[^$\d\s][^$\n]*\$|\$\$",
    flags=re.I | re.M,
)
_TABLE = _any(
    r"^\s*\|.*\|\s*$|\|.*\|.*\||:?-{3,}:?\s*\|",
    r"\t[^\t\n]+\t|^[^\t\n]+\t[^\t\n]+\n[^\t\n]+\t",
    # CSV: neighbouring lines of as many short fields
    r"^(?:[^,\n]{1,24},){2,}[^,\n]{0,24}\n(?:[^,\n]{0,24},){2,}[^,\n]{0,24}$",
    r"\b(?:in|as|into|with) an? (?:\w+ )?table\b(?! (?:with|for|at|by|near))|\btabular\b|\btable format\b",
    r"\b(?:create|make|generate|draw|construct|design|complete|build|give|fill (?:in|out))\b (?:me )?"
    r"(?:an? |the |this |following )*(?:[\w-]+ )?"
    r"(?:table(?! (?:reservation|setting|top|tennis|runner|lamp|for|out))|spreadsheet)\b",
    r"\bthe (?:following|given|above|below) (?:data )?table\b|\btable (?:below|above)\b",
    r"(?:制作|生成|创建|做|画|列|填写|整理|绘制|输出)(?:成|出|为|一个|一张|个|张)*[^，。！？\n]{0,8}(?:表格|列表格|电子表|对照表)"
    r"|(?:以|用)表格(?:的?形式|格式)?|(?:下|上|以下|下面的?|这张|这个|给定的?)(?:表格?|数据表)(?![示达情明面扬演现])",
    flags=re.I | re.M,
)
_STRUCTURED = _any(
    r"\{\s*[\"'][^\"']+[\"']\s*:|\[\s*(?:[\"'{]|-?\d+(?:\.\d+)?\s*[,，\]])|<\?xml|^\s*[\w-]+:\n(?:\s+[\w-]+:|\s*- )",
    r"\b(?:in|as|into|to|valid|return|output|using|a|an|the|parse|this) (?:json|xml|yaml|csv)\b"
    r"|\b(?:json|xml|yaml) (?:object|format|file|schema|string)",
    r"(?:以|用|为|成|的|个|段)\s?(?:json|xml|yaml|csv)|(?:json|xml|yaml|csv)\s?(?:格式|对象|文件|字符串|数据)",
    r"(?:^\s*(?:[-*•·]|\(?\d{1,2}[.)、）]|[a-z][.)])\s*\S.*\n?){3,}",
    r"(?:[-+$¥€]?\d[\d.]*%?[\s,，、;；]+){7,}\d",
    flags=re.I | re.M,
)
_SEPARATORS = ",，、"
_LONG_LIST = 12  # items
_ITEMS = re.compile(rf"(?:[^{_SEPARATORS}\n.!?。！？]{{1,20}}[{_SEPARATORS}]\s*){{{_LONG_LIST},}}")
_PICTURE = (
    r"(?:images?|pictures?|photos?|photographs?|screenshots?|diagrams?|charts?|graphs?|videos?|audio|figures?|pdfs?"
    r"|files?|spreadsheets?|documents?)"
)
_TEXT = (
    r"(?:passage|text|article|paragraphs?|essay|story|poem|conversation|dialogue|email|review|document|excerpt|abstract"
    r"|report|transcript|news|blog post|speech|contract)"
)
_ATTACHMENT = _any(
    rf"\b(?:attached|uploaded|enclosed) {_PICTURE}",
    rf"\b{_PICTURE} (?:attached|uploaded|enclosed|below|above|provided|shown|here|given)\b",
    rf"\b(?:the (?:following|given|above|attached|provided)|these|this) {_PICTURE}\b"
    r"(?! (?:editor|format|system|type)s?\b)",
    r"\b(?:look(?:ing)? at|in|from|see|describe) the (?:image|picture|photo|screenshot|attachment|figure)\b(?! of\b)",
    r"\bI(?:'ve| have)? (?:just )?(?:attached|uploaded|pasted)\b",
    r"\b(?:see|open|in|read|check) (?:the |this |my )?attach(?:ed|ments?)\b",
    r"[\[<](?:image|photo|picture|video|file|audio|attachment|图片|视频|文件|语音|附件)[^\]>]*[\]>]",
    r"\b[\w-]+\.(?:pdf|docx?|xlsx?|pptx?|png|jpe?g|gif|zip|txt|csv|mp[34]|wav)\b",
    "附件|如图|附图|见图"
    "|(?:下|上|这[张幅]|该|给定的?|提供的?|上传的?|以下|下列|此)(?:图(?!书)|图片|照片|截图|图表|视频|音频|录音)"
    "|(?:这[个份]|上传的?|给定的?)(?:文件|文档|PDF|表格|附件)|(?:图中|图片中|照片中|图里|图片里)",
)
_PASSAGE_CUE = _any(
    rf"\b(?:following|given|above|below|provided|attached|this) (?:\w+ ){{0,2}}?{_TEXT}\b",
    rf"\b{_TEXT} (?:below|above|provided|given)\b",
    "(?:以下|下面|下列|上述|上面|给定|所给|如下|这[段篇首封])(?:这)?(?:[段篇首封则])?的?[^，。！？：\n]{0,6}?"
    "(?:文章|段落|短文|文本|文字|材料|对话|故事|诗歌?|邮件|评论|文档|摘要|报道|新闻|内容|原文|散文|作文)",
)
_TASK = _any(
    r"\bascii art\b",
    r"\b(?:draw|sketch|paint|illustrate) (?:me )?(?:an? |the |this |my |some )(?!conclusion|line|lesson|comparison)",
    r"\b(?:[2-9]\d\d|\d{4,}|\d,\d{3})[- ]?words?\b|\b(?:two|three|five|six|eight)? ?(?:hundred|thousand)[- ]words?\b",
    r"\b(?:[3-9]|[1-9]\d|three|four|five|six|ten)[- ](?:page|paragraph)s?\b",
    r"\b(?:in|using|as|with|into)(?: an?| the)? (?:[\w-]+ )?(?:bullet(?:ed)? (?:points?|list|form)|numbered list"
    r"|markdown|outline form(?:at)?|(?:MLA|APA) (?:citation )?(?:style|format)|all caps|upper ?case|bold|italics)",
    r"\bbullet(?:ed)? points?\b|\bformat (?:the|this|it|your|as)\b|\bformatted as\b",
    r"\bfill in the (?:blanks?|gaps?|missing)|_{2,}|\.{9,}|\bmultiple[- ]choice\b|<mask>"
    r"|\b(?:choose|select|pick|identify) the (?:correct|best|right|odd) "
    r"(?:answer|option|word|choice|one|form|sentence)",
    r"\btrue or false\b|\bwhich (?:one )?of the following\b|(?:^|[\s\n(])A[.):、．].+?[\s\n(;,，]B[.):、．]",
    r"\b(?:crossword|sudoku|word search|flow ?chart|mind map|venn diagram|gantt)\b"
    r"|\b(?:underline|highlight|circle|capitali[sz]e) (?:the|each|all|every)\b",
    r"\b(?:punctuat(?:e|ion)|spelling|capitali[sz]ation|typos?)\b.{0,40}:|\bonly (?:using )?emojis?\b",
    r"\b\d*[a-z] ?[=^] ?-?\d|\d\s?[=^]\s?[\da-z]|\b\d*[xy] ?[+*/-] ?\d|[∑∫√≤≥≠]",
    "字符画|画(?:出|成)?(?:一)?[幅张个只条](?!大饼)|帮我画|绘制|思维导图|流程图|连线题",
    r"(?:[2-9]\d\d|\d{4,}|[两二三四五六七八九]百|[一二两三]千)\s?个?(?:字|词)(?!典)|[三四五345](?:段|页)(?:论文|文章|作文|的)",
    r"填空|选择题|判断题|多选题|单选题|以下哪|下列哪|（\s*）|\(\s+\)|(?:正确|错误)的(?:选项|一项)",
    r"markdown|(?:用|以|按)(?:要点|项目符号|编号|列表|分点)(?:的?形式)?|分点(?:列|作答|说明)|加粗|下划线"
    r"|标点符号.{0,12}[：:]|格式(?:化|如下|为)",
    flags=re.I | re.S,
)
# A request that names a text and ends there speaks of one that is not here.
_CONTENT = re.compile(r"[:：\n][^\w]*\w+|[\"“‘「].{8,}[\"”’」]|[。.!！]\s*(?:[^\s。]{12}|(?:\S+\s+){7})", re.S)
_EARLY = 80  # characters: a text that is named later stands before


def select_fault(text: str, language: Language) -> str | None:
    """Why a raw line of a source (an instruction with its input, a message) cannot become spoken dialogue, None if it
    can: one of "empty", "too long", "url", "code", "table", "structured", "attachment", "task", "script".

    task: asks for what exists on paper only, as a drawing or a cloze test. script: not in that of `language`.
    What is only to be written (a blog, a poem) passes: it will be asked for in other words.
    """
    text = text.replace("<noinput>", "").strip()
    if not re.search(r"[^\W_]", text):
        return "empty"
    size = count_units(text, language)
    if size > MAX_UNITS[language] or len(text) > 10 * MAX_UNITS[language]:
        return "too long"
    for reason, pattern in (("url", URL), ("code", _CODE), ("table", _TABLE), ("structured", _STRUCTURED)):
        if pattern.search(text):
            return reason
    if sum(map(text.count, _SEPARATORS)) >= _LONG_LIST and _ITEMS.search(text):
        return "structured"
    if _ATTACHMENT.search(text) or _refers(text, size >= _PASSAGE[language]):
        return "attachment"
    if _TASK.search(text):
        return "task"
    # Figures alone are of every language.
    return "script" if language_of(text) != language and re.search(r"[^\W\d_]", text) else None


def _refers(text: str, is_long: bool) -> bool:
    cue = _PASSAGE_CUE.search(text)
    if cue is None or is_long:
        return cue is not None
    return cue.start() < _EARLY and not _CONTENT.search(text, cue.end())
