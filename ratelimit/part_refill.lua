-- Part refill: level, fraction, at and expiry of a bucket by now, from its state, kind, amount,
-- full and period. A full one is like one that is not there. Time never runs back: a bucket that
-- was touched at a later time waits for it, unless that is further ahead than two periods, when
-- a clock was wrong and it begins anew.
local level, fraction, at, expiry = full, 0, now, 0
if state then
  if #state >= BUCKET_SIZE then
    level, fraction, at, expiry = unpacked(BUCKET, state)
  else
    level, fraction, at = unpacked(BUCKET_BEFORE, state)
  end
  if level >= full or at - now > 2 * period then
    level, fraction, at = full, 0, now
  else
    if fraction >= period then fraction = 0 end -- the rule had a longer one
    if at < now then
      if kind ~= STEADY then
        fraction = 0
        if older(kind, at, now) then level = full end
      else
        -- What comes in dt: level + floor((dt * amount + fraction) / period), and the remainder.
        local product = (now - at) * amount + fraction
        if product < 4e15 then
          fraction = product % period
          level = level + (product - fraction) / period
        else -- It has up to 67 bits, so the amount is taken in two halves of 15.
          local fmod = math.fmod
          local rest = fmod(now - at, period)
          local gained = (now - at - rest) / period * amount
          if gained < full - level then
            local low = fmod(amount, 32768)
            product = rest * ((amount - low) / 32768)
            local over = fmod(product, period)
            gained = gained + (product - over) / period * 32768
            product = over * 32768 + rest * low + fraction
            fraction = fmod(product, period)
            gained = gained + (product - fraction) / period
          end
          level = level + gained
        end
        if level >= full then level, fraction = full, 0 end
      end
      at = now
    end
  end
end
