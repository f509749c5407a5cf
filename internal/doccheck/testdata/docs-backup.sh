# A shop with something in it, and a checkout that nobody has paid: what a backup finds.
URL=$(truenorth checkout create --product 5b1c3a52-6f0e-4c55-9f4c-0a4a3f7d1c01 --external-customer-id usr_ada --wait 20s)
curl -sS --fail -o /dev/null -d action=pay -d email=ada@example.com "$URL"
truenorth checkout create --product 5b1c3a52-6f0e-4c55-9f4c-0a4a3f7d1c02 --external-customer-id usr_grace --wait 20s
