"""Names of files, folders and short labels that look like a person's."""

import re
from collections.abc import Iterator

LETTER = r"[^\W\d_]"
SUFFIXES = re.compile(
    r"(?:\.(?:nii|gz|dcm|ima|hdr|img|json|jsonl|tsv|csv|txt|md|html?|xml|ya?ml|png|jpe?g|pdf|zip|tar|tgz|log|npy|npz|"
    r"bvals?|bvecs?|mat|h5|db|sqlite|docx?|xlsx?|pptx?|py|ipynb|toml|cfg|ini|bak|old|orig|partial|tmp))+$",
    re.IGNORECASE,
)
PAIR = re.compile(
    rf"(?<!{LETTER})(?=({LETTER}{{2,40}})[ _.,+-]{{1,2}}({LETTER}{{2,40}})(?!{LETTER})([ _.,+-]*\d{{6,}})?)"
)
CAMEL = re.compile(r"(?<![A-Za-z])([A-Z][a-z]{2,20})([A-Z][a-z]{2,20})(?![A-Za-z])")
ONLY_TWO_WORDS = re.compile(rf"{LETTER}+[ _.,-]+{LETTER}+[ _.,\d-]*")
# Words of file names in imaging and research: with one of them, two capitalised words are no person.
_COMMON = """
    a abdomen acquisition adc adult affine after age aligned all american anat anatomical anatomy and ann annotation
    annotations anon anonymised anonymized anonymous archive area art atlas attention audit average axial b background
    backup baseline batch before best bias bids big binary body bone both brain brats breast build by cancer card case
    cases ce center central centre challenge change changes channel check checkpoint checkpoints child children class
    classes classification clinical code cohort collection color colour column columns common comparison config
    configuration contents contrast control controls conversion converted copy core coronal correction corrected count
    counts cropped ct current curve data database dataset datasets decathlon dev deep default defaced demo demographics
    derivative derivatives description design detection development diagnosis dice dicom dicomdir diff difference
    diffusion dir directory discovery disk disease display distance docs document documentation documents dose down
    download draft dti dwi early echo edema edge end enhanced enhancing epi error errors european evaluation event
    events example examples exam experiment experiments export extra face fast fat field fields figure figures file
    files filter final first fit flair flow fmri folder follow followup for format four frame free frequency from full
    func functional functions fusion future gad gadolinium gain gan gated generator generic german glioblastoma glioma
    global good gradient graph grey ground group groups guide head health healthy heart hemisphere hepatic high
    histogram history hospital human icon id image images imaging import in index info information initial input
    inputs install inter internal intra inversion invented is isotropic item items joint key kidney knee label labels
    large last late latest layer layout learning left lesion lesions level library license licence light line list
    liver local localizer location log logs long loss low lower lung lut machine magnitude main makefile manifest
    manual map maps mask masks matrix max mean median medical meningioma merged meta metadata metrics mid min mini
    missing misc mode model models modality module motion mouse movie mp mprage mr mri multi my name names native
    necrosis necrotic neg net network neuro new next no node noise non none normal normalised normalized not note
    notes notice number o object oedema of old on one open operation options or organ original other outline output
    outputs overlay overview own page paper parameter parameters part participant participants patch path patient
    patients people perfusion person phantom phantoms phase phd physio picture pictures pilot pipeline pixel plan
    plane plot plots point points population pos post pre preprocessed present preview private processed processing
    profile program progress project prostate protocol proton public quality quarantine quick radiology random range
    rate rater raw read readme real recon reconstruction record records reference region registered registration
    release removed report reports repository request requirements resampled research resolution response rest result
    results review right risk roi root round rules run runs sag sagittal sample samples scan scanner scans school
    science score scores screening screen script scripts second secret section seg segmentation segmentations
    segmented select selected sensitive sequence sequences series session set setting settings setup seven shape share
    shared short signal simple single site size skull slice slices small smooth software sort source space spectrum
    spin spine split stack stage standard start state station stats statistics status std step stop storage stripped
    structural structure structures stroke studies study subject subjects sub summary supplementary support surface
    survival switch syn synthetic system t table tables target task team tech template temp test tests text the thick
    thin third three time tissue to tool tools top total trace track train training transform tree trial true truth
    tumor tumors tumour tumours tutorial two type ultra uncompressed undefined unit united university unknown update
    upper usage user users val valid validation value values vector version versions vertex vessel video view views
    visit visual volume volumes voxel wash water wave web weight weighted weights western white whole wide window with
    without word work workflow working workspace world year young zero zone
"""
COMMON_WORDS = frozenset(_COMMON.split())
# Given names that are hardly ever another word.
_GIVEN = """
    aaron abigail adam adrian agnes ahmed aisha alan albert alejandro alessandro alex alexander alexandra ali alice
    alicia alison amanda amelia amir amy ana anastasia anders andrea andreas andrew andrzej angela anita anke anna anne
    annette antje anton antonio arthur astrid barbara beatrice benjamin bernd bernhard bettina birgit boris brandon
    brenda brian brigitte bruno camille carl carla carlos carmen carol caroline catherine charles charlotte chloe
    christina christine christoph christopher claudia clara daniel daniela david deborah dennis diana diego dieter
    dimitri dirk dominik donald donna dorothy douglas edith eduardo edward elena eleanor elif elisabeth elizabeth ellen
    emil emilia emily emma eric erik erika esther eugene eva evelyn fatima felix fernando florian francesca francesco
    francois frank franz frederic friedrich gabriel gabriele george georg gerald gerhard giovanni giulia giuseppe
    gloria gregory guido gunther gustav hannah hanna hans harald harold heather heidi heike heinrich heinz helen helena
    helga helmut henrik henry herbert hiroshi holger hugo ibrahim igor ines ingrid irene irina isabel isabella ivan
    jacob jacqueline jakob james jan jane janet jason javier jean jeffrey jennifer jeremy jessica joachim joan johan
    johann johanna johannes john jonas jonathan jorge jose joseph joshua juan judith juergen julia julian juliane julie
    jutta kai karen karin karl karla katarina katharina katherine kathleen kathrin kenneth kevin kim klaus kristina
    kumiko larissa larry laura lauren lena leon leonard lars lisa linda logan louis louise luca lucas lucia ludwig luis
    luisa lukas maja manfred manuel manuela marc marcel marco marcus margaret maria marie marina mario marion markus
    marta martha martin martina mary mathilde matthew matthias maurice max melanie melissa michael michaela michelle
    miguel mikhail mohamed mohammed monika muhammad nadine nancy natalia natalie natasha nathan nicholas nicole nikolai
    nina nora norbert oliver olga oleg olivia omar oskar otto pablo pamela patricia patrick paul paula pauline pavel
    pedro peter petra philip philipp philippe pierre piotr rachel rafael rainer ralf ralph ramona raymond rebecca
    regina renate ricardo richard rita robert roberta roger roland rolf ronald rosa rudolf ruth ryan sabine samantha
    samuel sandra sara sarah sebastian sergei sergio sharon silke silvia simon simone sofia sonja sophia sophie stefan
    stefanie stephan stephanie stephen steven susan susanne sven svetlana sylvia tatiana teresa thea theodor theresa
    thomas tim timothy tobias torsten ulrich ulrike ursula uwe valentina vanessa vera veronica veronika victor victoria
    viktor vincent virginia vladimir volker walter werner wilhelm william wolfgang xavier yasmin yusuf yuki zoe
"""
GIVEN_NAMES = frozenset(_GIVEN.split())


def looks_like_person(name: str, strict: bool = False) -> bool:
    """Tell whether a name of a file or a label looks like a person's.

    Two words next to each other, joined by a blank, ``_``, ``-``, ``.`` or ``,``: both capitalised and none of them
    usual in file names; in capitals, lower case or CamelCase only with a known given name or a long number behind.

    Parameters
    ----------
    name : str
        File or folder name, or a short label.
    strict : bool
        Ask for a known given name in any case: for cells of tables and keys, where two capitalised words are common.
    """
    stem = SUFFIXES.sub("", name)
    return any(_is_person(first, second, has_number, stem, strict) for first, second, has_number in _pairs(stem))


def _pairs(stem: str) -> Iterator[tuple[str, str, bool]]:
    for match in PAIR.finditer(stem):
        yield match[1], match[2], match[3] is not None
    for match in CAMEL.finditer(stem):
        # As sub-JaneDoe: only a known given name tells it from BrainTumour.
        yield match[1].lower(), match[2].lower(), False


def _is_person(first: str, second: str, has_number: bool, stem: str, strict: bool) -> bool:
    words = {first.lower(), second.lower()}
    if words & COMMON_WORDS or len(words) == 1:
        return False
    is_known = bool(words & GIVEN_NAMES)
    if first.istitle() and second.istitle():
        return is_known or not strict
    if first.isupper() and second.isupper():
        return is_known or (has_number and not strict)
    return is_known and (ONLY_TWO_WORDS.fullmatch(stem) is not None or CAMEL.search(stem) is not None)
