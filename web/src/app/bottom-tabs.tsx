import { CirclePlus, CircleUser, Container, House, type LucideIcon } from 'lucide-react';
import { NavLink } from 'react-router';
import { useAttention } from './attention';
import { useCreateDialog } from './create';

const TAB =
  'relative flex flex-1 flex-col items-center justify-center gap-0.5 text-[11px] font-medium text-fg-2 focus-inset aria-[current=page]:text-accent-fg';

function Tab({
  to,
  icon: Icon,
  label,
  count = 0,
}: {
  to: string;
  icon: LucideIcon;
  label: string;
  count?: number;
}) {
  return (
    <NavLink to={to} end={to === '/'} className={TAB}>
      <span className="relative">
        <Icon aria-hidden className="size-5" />
        {count > 0 && (
          <span className="absolute -top-1.5 left-3 min-w-4 rounded-full bg-bad-solid px-1 text-center text-[10px] leading-4 text-on-accent">
            {count}
            <span className="sr-only"> need you</span>
          </span>
        )}
      </span>
      {label}
    </NavLink>
  );
}

/** The main ways on a phone. */
export function BottomTabs() {
  const waiting = useAttention().length;
  const create = useCreateDialog();
  return (
    <nav
      aria-label="Main"
      className="flex shrink-0 border-t border-line bg-surface pb-[env(safe-area-inset-bottom)] md:hidden"
    >
      <div className="flex h-(--tabs-height) flex-1">
        <Tab to="/" icon={House} label="Home" count={waiting} />
        <Tab to="/envs" icon={Container} label="Environments" />
        <button type="button" onClick={create.show} className={TAB}>
          <CirclePlus aria-hidden className="size-5" />
          New
        </button>
        <Tab to="/settings" icon={CircleUser} label="Me" />
      </div>
    </nav>
  );
}
