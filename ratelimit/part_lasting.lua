-- Part lasting: when the key of a bucket is to expire, and whether that has to be said. It is not
-- before the bucket has been full for a minute. A key that lasts that long stays as it is, so that
-- most writes set no expiry: the script has read what it writes over, and no key expires while a
-- script runs.
local lasts = at + (kind == STEADY and (full - level) / amount * period or period) + 60000000
local longer = lasts > expiry
if longer then expiry = math.min(lasts + 60000000, now + 1e17) end
