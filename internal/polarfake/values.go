package polarfake

import "strings"

// presentmentCurrencies are the currencies a price may be shown in, in Polar's order.
var presentmentCurrencies = strings.Fields(`
	aed all amd aoa ars aud awg azn bam bbd bdt bif bmd bnd bob brl bsd bwp bzd cad cdf chf clp cny cop crc cve
	czk djf dkk dop dzd egp etb eur fjd fkp gbp gel gip gmd gnf gtq gyd hkd hnl htg huf idr ils inr isk jmd jpy
	kes kgs khr kmf krw kyd kzt lak lkr lrd lsl mad mdl mga mkd mnt mop mur mvr mwk mxn myr mzn nad ngn nio nok
	npr nzd pab pen pgk php pkr pln pyg qar ron rsd rwf sar sbd scr sek sgd shp sos srd szl thb tjs top try ttd
	twd tzs uah ugx usd uyu uzs vnd vuv wst xaf xcd xcg xof xpf yer zar zmw
`)

// billingCountries are the ISO 3166-1 codes that a billing address may bear.
var billingCountries = strings.Fields(`
	AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS BT BV BW BY BZ
	CA CC CD CF CG CH CI CK CL CM CN CO CR CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH ER ES ET FI FJ FK FM FO FR
	GA GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM HN HR HT HU ID IE IL IM IN IO IQ IS IT JE JM JO
	JP KE KG KH KI KM KN KR KW KY KZ LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK ML MM MN MO MP MQ MR
	MS MT MU MV MW MX MY MZ NA NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM PN PR PS PT PW PY QA RE
	RO RS RW SA SB SC SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV SX SZ TC TD TF TG TH TJ TK TL TM TN TO TR TT TV
	TW TZ UA UG UM US UY UZ VA VC VE VG VI VN VU WF WS YE YT ZA ZM ZW
`)

// EventTypes are all the types that an endpoint may subscribe to.
var EventTypes = []string{
	"checkout.created",
	"checkout.updated",
	"checkout.expired",
	"customer.created",
	"customer.updated",
	"customer.deleted",
	"customer.state_changed",
	"customer_seat.assigned",
	"customer_seat.claimed",
	"customer_seat.revoked",
	"member.created",
	"member.updated",
	"member.deleted",
	"order.created",
	"order.updated",
	"order.paid",
	"order.refunded",
	"subscription.created",
	"subscription.updated",
	"subscription.active",
	"subscription.canceled",
	"subscription.uncanceled",
	"subscription.cycled",
	"subscription.revoked",
	"subscription.past_due",
	"subscription.paused",
	"subscription.resumed",
	"refund.created",
	"refund.updated",
	"product.created",
	"product.updated",
	"discount.created",
	"discount.updated",
	"discount.deleted",
	"benefit.created",
	"benefit.updated",
	"benefit_grant.created",
	"benefit_grant.cycled",
	"benefit_grant.updated",
	"benefit_grant.revoked",
	"organization.updated",
	"subscription.migrated",
}
