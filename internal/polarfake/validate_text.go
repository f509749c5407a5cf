package polarfake

import (
	"net/url"
	"regexp"
	"strings"
)

// maxURLLength is the length of the longest URL that Polar takes.
const maxURLLength = 2083

var (
	emailLocalPart = regexp.MustCompile("^[A-Za-z0-9!#$%&'*+/=?^_`{|}~\\x{80}-\\x{10FFFF}-]+(\\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~\\x{80}-\\x{10FFFF}-]+)*$")
	emailDomain    = regexp.MustCompile(`^([\pL\pN]([\pL\pN-]{0,61}[\pL\pN])?\.)+[\pL\pN]([\pL\pN-]{0,61}[\pL\pN])?$`)
	usTaxNumber    = regexp.MustCompile(`^\d{9}$`)
	localeTag      = regexp.MustCompile(`^[A-Za-z]{2,3}([-_][A-Za-z]{4})?([-_]([A-Za-z]{2}|[0-9]{3}))?$`)
)

// email returns an address that mail can be sent to, with the domain in lower case. Where Polar asks the DNS, the fake
// takes the domains undeliverable.example and *.invalid for not existing and every other for fine.
func (f fields) email(name string) *string {
	text := f.text(name, 0, 0)
	if text == nil {
		return nil
	}
	address, complaint := checkEmail(*text)
	if complaint != "" {
		f.fail(f.at(name), "value_error", "value is not a valid email address: "+complaint, *text,
			map[string]any{"reason": complaint})
		return nil
	}
	return &address
}

func checkEmail(text string) (address, complaint string) {
	local, domain, found := cutLast(text, "@")
	domain = strings.ToLower(domain)
	switch {
	case !found:
		return "", "An email address must have an @-sign."
	case local == "":
		return "", "There must be something before the @-sign."
	case domain == "":
		return "", "There must be something after the @-sign."
	case len(local) > 64 || len(text) > 254:
		return "", "The email address is too long."
	case !emailLocalPart.MatchString(local):
		return "", "The email address contains invalid characters before the @-sign."
	case !strings.Contains(domain, "."):
		return "", "The part after the @-sign is not valid. It should have a period."
	case !emailDomain.MatchString(domain):
		return "", "The part after the @-sign contains invalid characters."
	case domain == "undeliverable.example" || strings.HasSuffix(domain, ".invalid"):
		return "", "The domain name " + domain + " does not exist."
	}
	return local + "@" + domain, ""
}

func cutLast(text, separator string) (before, after string, found bool) {
	i := strings.LastIndex(text, separator)
	if i < 0 {
		return text, "", false
	}
	return text[:i], text[i+len(separator):], true
}

// webURL returns an absolute http or https URL, as given.
func (f fields) webURL(name string) *string {
	text := f.text(name, 1, 0)
	if text == nil {
		return nil
	}
	if !f.checkURL(f.at(name), *text) {
		return nil
	}
	return text
}

func (f fields) checkURL(loc []any, text string) bool {
	if len(text) > maxURLLength {
		f.fail(loc, "url_too_long", "URL should have at most 2083 characters", text, map[string]any{"max_length": maxURLLength})
		return false
	}
	// The placeholder {CHECKOUT_ID} may stand anywhere, also where net/url would refuse a brace.
	parsed, err := url.Parse(strings.NewReplacer("{", "", "}", "").Replace(text))
	switch {
	case err != nil || parsed.Scheme == "":
		f.fail(loc, "url_parsing", "Input should be a valid URL, relative URL without a base", text,
			map[string]any{"error": "relative URL without a base"})
	case parsed.Scheme != "http" && parsed.Scheme != "https":
		f.fail(loc, "url_scheme", "URL scheme should be 'http' or 'https'", text,
			map[string]any{"expected_schemes": "'http' or 'https'"})
	case parsed.Host == "":
		f.fail(loc, "url_parsing", "Input should be a valid URL, empty host", text, map[string]any{"error": "empty host"})
	default:
		return true
	}
	return false
}

// locale returns a BCP 47 language tag.
func (f fields) locale() *string {
	text := f.text("locale", 0, 0)
	if text == nil {
		return nil
	}
	if !localeTag.MatchString(*text) {
		f.failValue(f.at("locale"), "Value error, Invalid locale.", *text)
		return nil
	}
	return text
}

// taxID returns a tax number with the name of its format. Polar knows each country's forms; the fake tells apart
// only those of the European Union, which begin with the country, and of the United States.
func (f fields) taxID(name string, country *address) []string {
	text := f.text(name, 0, 0)
	if text == nil || *text == "" {
		return nil
	}
	number := strings.ToUpper(strings.NewReplacer(" ", "", ".", "", "-", "").Replace(*text))
	switch {
	case country == nil:
		f.failValue(f.at(name), "Country is required.", *text)
	case country.Country == "US" && usTaxNumber.MatchString(number):
		return []string{number, "us_ein"}
	case strings.HasPrefix(number, country.Country) && len(number) >= 8 && len(number) <= 15:
		return []string{number, "eu_vat"}
	default:
		f.failValue(f.at(name), "Invalid tax ID.", *text)
	}
	return nil
}
